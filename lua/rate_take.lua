-- Lets one more session be created, or says when one may.
--
-- KEYS[1] rate        STRING  the bucket: theoretical arrival time in us
-- ARGV[1] interval us         between two at the full rate, at least 1
-- ARGV[2] burst               at least 1
--
-- Returns 0, or the us until a retry may succeed. Cost: O(1).
local rate = KEYS[1]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])

--include gcra

local time = redis.call('TIME')
return { take(rate, interval, burst, time[1] * 1000000 + time[2]) }
