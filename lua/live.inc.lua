-- Included by scripts that serve live sessions only, after leeway.

-- Reports whether a session lives, neither ended nor past its end, and the version of its record.
local function lives(session, deadlines, id, leeway, max_age, now)
  local record = redis.call('HMGET', session, 's', 'c', 'v')
  local ends = redis.call('ZSCORE', deadlines, id)
  return (record[1] == 'a' or record[1] == 'i') and not is_past(ends, leeway, record[2], max_age, now), record[3]
end
