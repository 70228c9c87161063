-- Names the replicas that live.
--
-- KEYS[1] replicas    ZSET  incarnations by their last sign of life, ms
-- ARGV[1] alive ms            those silent for longer are dead
--
-- Returns the time, ms, then the incarnation and its last sign of life, ms, of each, those first that were silent the longest.
-- Cost: O(log n + replicas).
local replicas = KEYS[1]
local alive = tonumber(ARGV[1])

--include clock

local now = clock()
local reply = redis.call('ZRANGEBYSCORE', replicas, now - alive, '+inf', 'WITHSCORES')
table.insert(reply, 1, now)
return reply
