-- Records messages of a session, live or ended.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] frames      STREAM  <number>-0 -> what is known of one message; c is the size of all up to and with it, b its own
-- ARGV[1] count, ARGV[2] bytes: what is kept of a session, the oldest goes first
-- ARGV[3] lifetime ms         the backstop TTL of a live session
-- ARGV[4] retention ms        the same of an ended one
-- then for each message: age in ms, direction, method, JSON-RPC id, size, HTTP status, latency in us, incarnation, payload
--
-- Returns the number of the last one; error NOTFOUND. Cost: O(messages stored and dropped).
local session, frames = KEYS[1], KEYS[2]
local count, bytes, lifetime, retention = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local overhead = 64 -- of a message without any text, about

--include clock

local status = redis.call('HGET', session, 's')
if not status then
  return redis.error_reply('NOTFOUND no such session')
end
local now = clock()
local newest = redis.call('XREVRANGE', frames, '+', '-', 'COUNT', 1)[1]
local number, sum = 0, 0
if newest then number, sum = tonumber(string.match(newest[1], '^%d+')), tonumber(newest[2][2]) end
for i = 5, #ARGV, 9 do
  local size = overhead + #ARGV[i + 2] + #ARGV[i + 3] + #ARGV[i + 7] + #ARGV[i + 8]
  number, sum = number + 1, sum + size
  -- first: a full server refuses it
  redis.call('XADD', frames, number .. '-0', 'c', string.format('%.0f', sum), 'b', size, 't', now - ARGV[i],
    'd', ARGV[i + 1], 'm', ARGV[i + 2], 'i', ARGV[i + 3], 'n', ARGV[i + 4], 's', ARGV[i + 5], 'l', ARGV[i + 6],
    'r', ARGV[i + 7], 'p', ARGV[i + 8])
end
while true do
  local oldest = redis.call('XRANGE', frames, '-', '+', 'COUNT', 1)[1]
  if not oldest or oldest[1] == number .. '-0' then break end -- the last one stays: it holds the count
  if redis.call('XLEN', frames) <= count and sum - oldest[2][2] + oldest[2][4] <= bytes then break end
  redis.call('XDEL', frames, oldest[1])
end
local is_live = status == 'a' or status == 'i'
redis.call('PEXPIREAT', frames, now + (is_live and lifetime or retention))
return { number }
