-- Reads messages of one of a live session's streams, those that follow a position without a gap. Touches nothing.
--
-- KEYS[1] session     HASH    the record
-- KEYS[2] events      STREAM  of all its streams: s the stream, p the position in it, d the message
-- KEYS[3] heads       HASH    the last position of each stream in events
-- ARGV[1] stream, ARGV[2] position after which to read, ARGV[3] limit
-- ARGV[4] age ms              older messages are gone, though they may still be there
--
-- Returns the last position stored (0: none), then the messages; error NOTFOUND, GONE (what follows is not kept).
-- Cost: O(messages kept).
local session, events, heads = KEYS[1], KEYS[2], KEYS[3]
local stream, after, limit, age = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

--include clock

local status = redis.call('HGET', session, 's')
if status ~= 'a' and status ~= 'i' then
  return redis.error_reply('NOTFOUND no such live session')
end
local head = tonumber(redis.call('HGET', heads, stream) or 0)
if head == after then return { head } end

local reply, start, oldest = { head }, '-', clock() - age
while head > after and #reply <= limit do
  local some = redis.call('XRANGE', events, start, '+', 'COUNT', 32)
  for _, entry in ipairs(some) do
    local position = tonumber(entry[2][4])
    if entry[2][2] == stream and position > after and #reply <= limit then
      local is_old = tonumber(string.match(entry[1], '^%d+')) <= oldest
      if is_old or position ~= after + #reply then
        if #reply > 1 then return reply end
        return redis.error_reply('GONE what follows is not kept')
      end
      reply[#reply + 1] = entry[2][6]
    end
  end
  if #some < 32 then break end
  start = '(' .. some[#some][1]
end
if #reply > 1 then return reply end
return redis.error_reply('GONE what follows is not kept')
