-- Stores messages of one of a live session's streams, for resumption. Those stored already are passed over.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] events      STREAM  of all its streams: s the stream, p the position in it, d the message
-- KEYS[3] heads       HASH    the last position of each stream in events, and, without a name, the bytes of all messages
-- ARGV[1] stream, ARGV[2] position of the first message
-- ARGV[3] count, ARGV[4] bytes, ARGV[5] age ms: what is kept of a session, the oldest goes first
-- then the messages
--
-- Returns the number stored; error NOTFOUND. Cost: O(messages stored and dropped).
local session, events, heads = KEYS[1], KEYS[2], KEYS[3]
local stream, first, count, bytes, age = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

--include clock

local status = redis.call('HGET', session, 's')
if status ~= 'a' and status ~= 'i' then
  return redis.error_reply('NOTFOUND no such live session')
end
local now = clock()
local known = redis.call('HMGET', heads, stream, '')
local head, total, stored = tonumber(known[1] or 0), tonumber(known[2] or 0), 0
for i = 6, #ARGV do
  local position = first + i - 6
  if position > head then
    redis.call('XADD', events, '*', 's', stream, 'p', position, 'd', ARGV[i]) -- first: a full server refuses it
    head, total, stored = position, total + #ARGV[i], stored + 1
  end
end
if stored > 0 then redis.call('HSET', heads, stream, head) end

while true do
  local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not oldest then break end
  local is_old = tonumber(string.match(oldest[1], '^%d+')) <= now - age
  if not is_old and total <= bytes and redis.call('XLEN', events) <= count then break end
  local of, position, message = oldest[2][2], oldest[2][4], oldest[2][6]
  redis.call('XDEL', events, oldest[1])
  total = total - #message
  if redis.call('HGET', heads, of) == position then redis.call('HDEL', heads, of) end
end
redis.call('PEXPIREAT', events, now + age)
if stored > 0 then redis.call('HSET', heads, '', total) end
redis.call('PEXPIREAT', heads, now + age)
return { stored }
