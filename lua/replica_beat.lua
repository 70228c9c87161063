-- Says that a replica lives.
--
-- KEYS[1] replicas    ZSET  incarnations by their last sign of life, ms
-- ARGV[1] incarnation
-- ARGV[2] forget ms           those silent for longer are forgotten
--
-- Returns how many are known. Cost: O(log n).
local replicas = KEYS[1]
local incarnation, forget = ARGV[1], tonumber(ARGV[2])

--include clock

local now = clock()
redis.call('ZREMRANGEBYSCORE', replicas, '-inf', now - forget) -- first: a permitted write opens a full server for the others
redis.call('ZADD', replicas, now, incarnation)
redis.call('PEXPIREAT', replicas, now + forget)
return { redis.call('ZCARD', replicas) }
