-- Names the replicas that live.
--
-- KEYS[1] replicas    ZSET  incarnations by their last sign of life, ms
-- ARGV[1] alive ms            those silent for longer are dead
--
-- Returns their incarnations. Cost: O(log n + replicas).
local replicas = KEYS[1]
local alive = tonumber(ARGV[1])

--include clock

return redis.call('ZRANGEBYSCORE', replicas, clock() - alive, '+inf')
