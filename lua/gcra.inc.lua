-- Included by scripts that limit how often something may happen.

-- Takes one from a bucket (GCRA: its state is one theoretical arrival time, in us) that refills every interval us and holds
-- burst. Returns 0, or the us until there is one again: then nothing was taken.
local function take(bucket, interval, burst, now_us)
  -- Never further ahead than a spent bucket: else a clock that went back would lock everybody out.
  local from = math.min(math.max(tonumber(redis.call('GET', bucket) or 0), now_us), now_us + burst * interval)
  if from + interval > now_us + burst * interval then
    return from + interval - burst * interval - now_us
  end
  local left = math.ceil((from + interval - now_us) / 1000)
  redis.call('SET', bucket, string.format('%.0f', from + interval), 'PX', left + 1000)
  return 0
end
