-- Included by scripts that need the time: Redis's own, in ms since 1970. Replicas never send clock times.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
