-- Reads the requests in flight of a session, live or ended. Touches nothing.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] pending     HASH  requests in flight: key -> "<ms since 1970> <incarnation>"
-- ARGV[1] limit
--
-- Returns for each, in no order, its key, incarnation and age in ms; error NOTFOUND. Cost: O(requests in flight).
local session, pending = KEYS[1], KEYS[2]
local limit = tonumber(ARGV[1])

--include clock

if redis.call('EXISTS', session) == 0 then
  return redis.error_reply('NOTFOUND no such session')
end
local now = clock()
local reply = {}
local all = redis.call('HGETALL', pending)
for i = 1, math.min(#all, 2 * limit), 2 do
  local since, incarnation = string.match(all[i + 1], '^(%d+) (.*)$')
  if since then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = all[i], incarnation, math.max(now - since, 0)
  end
end
return reply
