-- Included by scripts that serve live sessions only, after clock.

-- Reports whether a session lives: neither ended nor past its end.
local function lives(session, deadlines, id, now)
  local status = redis.call('HGET', session, 's')
  local ends = redis.call('ZSCORE', deadlines, id)
  return (status == 'a' or status == 'i') and not (ends and tonumber(ends) <= now)
end
