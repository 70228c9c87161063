-- Purges those of some sessions that have ended, whether or not their retention has passed.
--
-- KEYS[1] ended       ZSET    ended sessions by purge time
-- KEYS[2] counts      HASH
-- KEYS[3] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] epoch, ARGV[11] is_leader: 1 or 0
-- then the ids, at most 100
--
-- Returns the ids purged; error FENCED <epoch>. Cost: O(log n) a session.
local ended, counts, fence = KEYS[1], KEYS[2], KEYS[3]
local lru, deadlines -- no live session is touched
local epoch, is_leader = ARGV[10], ARGV[11]

--include record
--include finish
--include purge
--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local ids, taken = {}, {}
for i = 12, #ARGV do
  local id = ARGV[i]
  if not taken[id] and redis.call('ZSCORE', ended, id) then ids[#ids + 1], taken[id] = id, true end
end
purge(ids)
return purged
