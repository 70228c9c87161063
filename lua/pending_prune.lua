-- Forgets requests in flight that dead incarnations have left behind in a session.
--
-- KEYS[1] pending     HASH  requests in flight: key -> "<ms since 1970> <incarnation>"
-- ARGV    the dead incarnations
--
-- Returns how many were forgotten. Cost: O(requests in flight).
local pending = KEYS[1]
local dead = {}
for _, incarnation in ipairs(ARGV) do dead[incarnation] = true end
local all = redis.call('HGETALL', pending)
local forgotten = 0
for i = 1, #all, 2 do
  if dead[string.match(all[i + 1], '^%d+ (.*)$')] then
    redis.call('HDEL', pending, all[i])
    forgotten = forgotten + 1
  end
end
return { forgotten }
