-- Gives back places among a principal's live sessions.
--
-- KEYS[1] principal   ZSET  ids of its sessions by the moment of reservation, ms
-- ARGV    the ids, at most 1000
--
-- Returns how many there were. Cost: O(log n) an id.
local principal = KEYS[1]
return { redis.call('ZREM', principal, unpack(ARGV)) }
