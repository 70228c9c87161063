-- Writes back what one replica saw of up to 25 sessions, and renews what it may serve.
--
-- KEYS[1] lru         ZSET  live sessions by last activity
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- then for each session: its session HASH and its pending HASH
-- ARGV[1] idle ms             idle timeout and slack, 0: never
-- ARGV[2] max_age ms          0: never
-- ARGV[3] lifetime ms         the backstop TTL of a live session
-- ARGV[4] never               the score of a session without an end
-- ARGV[5] interval us         between two requests at the full rate, 0: no limit
-- ARGV[6] burst (requests), ARGV[7] leeway ms (see leeway.inc.lua)
-- then for each session: id, ms since the last activity (-1: only an open stream holds it), requests served, requests
-- given back, when those were granted (us by this clock), requests wanted, number of requests now pending and for each its key, owner
-- and age in ms, number of requests no longer pending and for each its key
--
-- Returns for each session: 1 (0: it no longer serves requests, and the rest is 0), version, granted, left, ms to its end (-1:
-- never), this clock in us, number of requests in flight. Cost: O(log n) a session.
local lru, deadlines = KEYS[1], KEYS[2]
local idle, max_age, lifetime, never = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local interval, burst, leeway = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

--include leeway

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_us = time[1] * 1000000 + time[2]

-- Gives budget back, less what time has refilled since it was taken, and takes new: arrival time, granted, left.
local function spend(arrival, unspent, since, want)
  local age = math.max(now_us - since, 0)
  arrival = math.min(tonumber(arrival or 0), now_us + burst * interval) - math.max(unspent * interval - age, 0)
  local from = math.max(arrival, now_us)
  -- At most a quarter of what is left, as in session_lease.
  local granted = math.max(math.min(want, math.floor((now_us + burst * interval - from) / interval / 4)), 0)
  if granted > 0 then arrival = from + granted * interval end
  return string.format('%.0f', arrival), granted, math.floor((now_us + burst * interval - math.max(arrival, now_us)) / interval)
end

local reply, arg = {}, 8
for key = 3, #KEYS, 2 do
  local session, pending, id = KEYS[key], KEYS[key + 1], ARGV[arg]
  local silent, requests = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local unspent, since, want = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4]), tonumber(ARGV[arg + 5])
  local started = arg + 7
  local finished = started + 3 * tonumber(ARGV[arg + 6]) + 1
  arg = finished + tonumber(ARGV[finished - 1])

  local record = redis.call('HMGET', session, 's', 'v', 'c', 'a', 't', 'q')
  local ends = tonumber(redis.call('ZSCORE', deadlines, id) or never)
  if record[1] ~= 'a' or is_past(ends, leeway, record[3], max_age, now) then
    for _ = 1, 7 do reply[#reply + 1] = 0 end
  else
    local activity = tonumber(record[4])
    if silent >= 0 then activity = math.max(activity, now - silent) end
    local until_idle = idle > 0 and (silent >= 0 and activity or now) + idle or never
    local until_old = max_age > 0 and record[3] + max_age or never
    ends = math.min(math.max(ends == never and 0 or ends, until_idle), until_old)
    local granted, left = want, 0
    if interval > 0 then record[5], granted, left = spend(record[5], unspent, since, want) end

    redis.call('PEXPIREAT', session, now + lifetime) -- first: a permitted write opens a full server for the others
    redis.call('HSET', session, 'a', activity, 't', record[5] or '0', 'q', record[6] + requests)
    redis.call('ZADD', lru, activity, id)
    redis.call('ZADD', deadlines, string.format('%.0f', ends), id)
    for i = started, finished - 2, 3 do
      redis.call('HSET', pending, ARGV[i], (now - ARGV[i + 2]) .. ' ' .. ARGV[i + 1])
    end
    if finished - 1 > started then redis.call('PEXPIREAT', pending, now + lifetime) end
    for i = finished, arg - 1 do redis.call('HDEL', pending, ARGV[i]) end
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3], reply[#reply + 4] = 1, tonumber(record[2]), granted, left
    reply[#reply + 1] = ends == never and -1 or math.max(ends - now, 0)
    reply[#reply + 1], reply[#reply + 2] = string.format('%.0f', now_us), redis.call('HLEN', pending)
  end
end
return reply
