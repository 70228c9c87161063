-- Included by scripts that mend records, after mend. The local lifetime must be set before.

-- No time of a record lies outside of these: nobody is without a sweeper, and no clock goes back, for so long.
local earliest, latest = now - 2 * lifetime, now + 86400000

-- Returns the number that a record holds in a field. What is no whole number, or none from least to most, is replaced.
local function number_in(id, session, field, text, least, most, instead)
  local number = text and #text <= 17 and string.match(text, '^%-?%d+$') and tonumber(text)
  if number and number >= least and number <= most then return number end
  redis.call('HDEL', session, field) -- first: a permitted write opens a full server for the others
  redis.call('HSET', session, field, string.format('%.0f', instead))
  mended(id, 'record_broken', 1)
  return instead
end

-- Mends the numbers of a record, of which the fields a, c, z, v, q, t follow the status. Returns when the session was last
-- active, was created and, if it does not live, ended.
local function restore(id, session, record, is_live)
  local exact = 2 ^ 53 -- the greatest whole number that Lua tells from the next
  local activity = number_in(id, session, 'a', record[2], earliest, latest, now)
  local created = number_in(id, session, 'c', record[3], earliest, latest, activity)
  number_in(id, session, 'v', record[5], 1, exact, 1)
  number_in(id, session, 'q', record[6], 0, exact, 0)
  number_in(id, session, 't', record[7] or '0', -exact, exact, 0)
  return activity, created, is_live or number_in(id, session, 'z', record[4], earliest, latest, now)
end
