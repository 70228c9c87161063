-- Included by scripts that tell whether a session is past its end.

-- Reports whether a session that lives until ends (false: for ever) is over. For want of activity it is so only after the
-- leeway: after an outage of the store, what others saw of it is still on its way. Its age ends it at once.
local function is_past(ends, leeway, created, max_age, now)
  if not ends or tonumber(ends) > now then return false end
  return tonumber(ends) + leeway <= now or (max_age > 0 and created + max_age <= now)
end
