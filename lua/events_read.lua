-- Reads messages of one of a live session's streams, those that follow a position without a gap. Touches nothing.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] deadlines   ZSET    live sessions by their end
-- KEYS[3] events      STREAM  of all its streams: s the stream, p the position in it, d the message
-- KEYS[4] heads       HASH    the last position of each stream in events
-- KEYS[5] more        HASH    of its own stream: l the last position ever, c the listener, k the claim to read it
-- ARGV[1] id, ARGV[2] stream, ARGV[3] after: the position behind which to read, ARGV[4] limit
-- ARGV[5] age ms              older messages are gone, though they may still be there
-- ARGV[6] is_own: 1 when it is the session's own stream
-- ARGV[7] leeway ms          see leeway.inc.lua
-- ARGV[8] max_age ms         0: never
-- ARGV[9] bytes              after so many no message more is returned
--
-- Returns the last position stored (0: none), the number of the listener, that of the claim, then the messages; error NOTFOUND,
-- GONE (what follows is not kept). Cost: O(messages stored since after, those of other streams included).
local session, deadlines, events, heads, more = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, stream, after, limit, age = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local is_own, leeway, max_age, bytes = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

--include clock
--include leeway
--include live

local now = clock()
if not lives(session, deadlines, id, leeway, max_age, now) then
  return redis.error_reply('NOTFOUND no such live session')
end
local own = is_own == '1' and redis.call('HMGET', more, 'l', 'c', 'k') or { redis.call('HGET', heads, stream) }
local head, begun = tonumber(own[1] or 0), 3
local reply = { head, tonumber(own[2] or 0), tonumber(own[3] or 0) }
if head == after then return reply end

-- The newest first: who follows a stream lacks the last few of many.
local found, stop, oldest = {}, '+', now - age
while head > after and stop do
  local some = redis.call('XREVRANGE', events, stop, '-', 'COUNT', 32)
  stop = #some == 32 and '(' .. some[32][1]
  for _, entry in ipairs(some) do
    local behind = tonumber(entry[2][4]) - after
    local is_old = tonumber(string.match(entry[1], '^%d+')) <= oldest
    if is_old or entry[2][2] == stream and behind < 1 then
      stop = false
      break
    end
    if entry[2][2] == stream and behind <= limit then found[behind] = entry[2][6] end
  end
end
for _, message in ipairs(found) do -- up to the first gap
  if bytes <= 0 then break end
  reply[#reply + 1], bytes = message, bytes - #message
end
if #reply > begun then return reply end
return redis.error_reply('GONE what follows is not kept')
