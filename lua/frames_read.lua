-- Reads what was recorded of a session, in order. Touches nothing.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] frames      STREAM  <number>-0 -> what is known of one message
-- ARGV[1] first: the number to begin with, ARGV[2] limit
--
-- Returns the number of the last one stored (0: none), then for each its number, time in ms, direction, method, JSON-RPC id, size, HTTP status,
-- latency in us, incarnation and payload; error NOTFOUND. Cost: O(messages read).
local session, frames = KEYS[1], KEYS[2]
local first, limit = ARGV[1], ARGV[2]

if redis.call('EXISTS', session) == 0 then
  return redis.error_reply('NOTFOUND no such session')
end
local newest = redis.call('XREVRANGE', frames, '+', '-', 'COUNT', 1)[1]
if not newest then return { 0 } end
local reply = { tonumber(string.match(newest[1], '^%d+')) }
for _, entry in ipairs(redis.call('XRANGE', frames, first .. '-0', '+', 'COUNT', limit)) do
  reply[#reply + 1] = tonumber(string.match(entry[1], '^%d+'))
  for field = 6, 22, 2 do reply[#reply + 1] = entry[2][field] end
end
return reply
