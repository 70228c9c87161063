-- Stores messages of one of a live session's streams, for resumption. Those stored already are passed over.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] deadlines   ZSET    live sessions by their end
-- KEYS[3] events      STREAM  of all its streams: s the stream, p the position in it, d the message
-- KEYS[4] heads       HASH    the last position of each stream in events, and, without a name, the bytes of all messages
-- KEYS[5] more        HASH    of its own stream: k the claim to read it, l its last position, j the upstream's id of that, c the listener
-- ARGV[1] id, ARGV[2] stream, ARGV[3] first: the position of the first message
-- ARGV[4] count, ARGV[5] bytes, ARGV[6] age ms: what is kept of a session: a message goes when so many have come after it
-- ARGV[7] is_own: 1 when it is the session's own stream, which needs the claim and counts on after what is not kept any more
-- ARGV[8] claim, ARGV[9] upstream_event: the upstream's id of the last message
-- ARGV[10] lifetime ms        the backstop TTL of a live session
-- ARGV[11] leeway ms          see leeway.inc.lua
-- ARGV[12] max_age ms         0: never
-- ARGV[13] said_by            the version of the record whose upstream session gave that id: to another one it means nothing
-- then the messages; an empty one is not kept, which leaves a hole
--
-- Returns by how much that moved on the last position, the number of the listener; error NOTFOUND, STALE (another claim). Cost: O(messages stored and
-- dropped).
local session, deadlines, events, heads, more = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, stream, first = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count, bytes, age = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local is_own, claim, upstream_event, lifetime = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
local leeway, max_age, said_by = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13]

--include clock
--include leeway
--include live

local now = clock()
local is_live, version = lives(session, deadlines, id, leeway, max_age, now)
if not is_live then
  return redis.error_reply('NOTFOUND no such live session')
end
local own = redis.call('HMGET', more, 'k', 'l', 'c')
if is_own == '1' and own[1] ~= claim then
  return redis.error_reply('STALE another has the claim')
end
local known = redis.call('HMGET', heads, stream, '')
local last, total, dropped = tonumber(known[1] or 0), tonumber(known[2] or 0), 0
local begun = is_own == '1' and tonumber(own[2] or 0) or last
local head, kept = begun, false
for i = 14, #ARGV do
  local position = first + (i - 14)
  if position > head then
    head = position
    if ARGV[i] ~= '' then
      redis.call('XADD', events, '*', 's', stream, 'p', string.format('%.0f', position), 'd', ARGV[i]) -- first: a full server refuses it
      last, total, kept = position, total + #ARGV[i], true
    end
  end
end
if kept then redis.call('HSET', heads, stream, string.format('%.0f', last)) end
if is_own == '1' and head > begun then
  redis.call('HSET', more, 'l', string.format('%.0f', head))
  if version == said_by then redis.call('HSET', more, 'j', upstream_event) end
end

while true do
  local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not oldest then break end
  local is_old = tonumber(string.match(oldest[1], '^%d+')) <= now - age
  local of, position, message = oldest[2][2], oldest[2][4], oldest[2][6]
  if not is_old and total - #message < bytes and redis.call('XLEN', events) <= count then break end
  redis.call('XDEL', events, oldest[1])
  total, dropped = total - #message, dropped + 1
  if redis.call('HGET', heads, of) == position then redis.call('HDEL', heads, of) end
end
redis.call('PEXPIREAT', events, now + age)
if kept or dropped > 0 then redis.call('HSET', heads, '', total) end
redis.call('PEXPIREAT', heads, now + age)
if is_own == '1' then redis.call('PEXPIREAT', more, now + lifetime) end
return { head - begun, tonumber(own[3] or 0) }
