-- Included by scripts that mend indexes, after mend. The locals idle, max_age, initialize_timeout and never must be set before.

-- Puts a session at its place in an index: one that comes before least there, at that; one that comes after most, or is not
-- there, instead.
local function place(id, index, least, most, instead)
  local text = redis.call('ZSCORE', index, id)
  local score = text and string.match(text, '^%-?%d') and tonumber(text) -- else it is infinite
  if score and score >= least and score <= most then return end
  redis.call('ZREM', index, id) -- first, as above
  redis.call('ZADD', index, string.format('%.0f', score and score < least and least or instead), id)
  mended(id, text and 'score_wrong' or 'index_missing', 1)
end

-- The earliest and the latest moment at which a live session may end, and a new end for one that has lost its own. Nobody knows
-- whether an open stream holds it: it is given all the time that it could have.
local function ends_of(status, activity, created)
  local start = created + initialize_timeout
  if status == 'i' then return start, start, start end
  local most = max_age > 0 and created + max_age or never
  if idle == 0 then return most, most, most end
  return math.min(activity + idle, most), most, math.min(math.max(now, activity) + idle, most)
end
