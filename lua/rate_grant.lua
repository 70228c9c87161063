-- Lets a principal make requests without a session, one at least and no more than are wanted, or says when it may (GCRA, in whole
-- microseconds).
--
-- KEYS[1] rate        STRING  the bucket: theoretical arrival time in us
-- ARGV[1] interval us         between two at the full rate, at least 1
-- ARGV[2] burst, ARGV[3] want: requests, at least 1
--
-- Returns how many were granted, and 0; or 0, and the us until a retry may succeed. Cost: O(1).
local rate = KEYS[1]
local interval, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
-- Never further ahead than a spent bucket: else a clock that went back would lock the principal out.
local from = math.min(math.max(tonumber(redis.call('GET', rate) or 0), now_us), now_us + burst * interval)
local room = math.floor((now_us + burst * interval - from) / interval)
if room < 1 then return { 0, from + interval - burst * interval - now_us } end
-- Beyond the first at most a quarter of the rest: what one replica holds, another must do without.
local granted = 1 + math.min(want - 1, math.floor((room - 1) / 4))
local arrival = from + granted * interval
redis.call('PERSIST', rate) -- first: a permitted write opens a full server for the others
redis.call('SET', rate, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now_us) / 1000) + 1000)
return { granted, 0 }
