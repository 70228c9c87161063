-- Makes a replica the reader of a live session's own stream, its client the listener, or both.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] more        HASH  h the reader, k the number of its claim, c the number of the listener, l the last position, j the
--                           upstream's id of that, s what l was when each of the latest claims was taken, b where each of the
--                           latest listeners begins
-- ARGV[1] id, ARGV[2] owner: the replica's incarnation
-- ARGV[3] listen: 1 or 0
-- ARGV[4] read: 1 or 0, ARGV[5] from: the claim that may be taken from somebody else
-- ARGV[6] lifetime ms         the backstop TTL of a live session
-- ARGV[7] leeway ms          see leeway.inc.lua
-- ARGV[8] max_age ms         0: never
-- ARGV[9] after              the position that the listener begins behind, -1: the last one
-- ARGV[10] event             the upstream's id of the message there, if a client was sent it, '': not known
-- ARGV[11] under             the claim under which it was sent, 0: not known
-- ARGV[12] said_by           the version of the record whose upstream session said it
--
-- A message that a client has is the last one, though it was never stored: whoever reads on begins behind it. Else a listener begins where
-- that claim ended, if it is ahead of that.
--
-- Returns the reader ('' for none), its claim or the last one, the listener, the last position, the upstream's id of that, what
-- the last position was when each of the latest claims was taken, and the version of the record; error NOTFOUND. Cost: O(1).
local session, deadlines, more = KEYS[1], KEYS[2], KEYS[3]
local id, owner, listen, read, from, lifetime = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local leeway, max_age, after = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local event, under, said_by = ARGV[10], ARGV[11], ARGV[12]

--include clock
--include leeway
--include live
--include latest

local now = clock()
local is_live, version = lives(session, deadlines, id, leeway, max_age, now)
if not is_live then
  return redis.error_reply('NOTFOUND no such live session')
end
local known = redis.call('HMGET', more, 'h', 'k', 'c', 'l', 'j', 's', 'b')
local reader, claim, listener = known[1] or '', tonumber(known[2] or 0), tonumber(known[3] or 0)
local last, last_event, since, begins = known[4] or '0', known[5] or '', known[6] or '', known[7] or ''
local ahead = event ~= '' and known[2] == under and version == said_by and tonumber(after) > tonumber(last)
if ahead then last, last_event = after, event end
local takes = read == '1' and reader ~= owner and (reader == '' or known[2] == from)
if takes then reader, claim, since = owner, claim + 1, with_latest(last, since) end
if listen == '1' then
  local ended = tonumber(under) > 0 and latest(claim - tonumber(under), since) or tonumber(last)
  listener, begins = listener + 1, with_latest(after == '-1' and last or math.min(tonumber(after), ended), begins)
end
if listen == '1' or reader == owner or ahead then -- without a change, too: WAIT waits for writes of its own connection only
  redis.call('PERSIST', more) -- first: a permitted write opens a full server for the others
  if takes then redis.call('HSET', more, 'h', reader, 'k', claim, 's', since) end
  if listen == '1' then redis.call('HSET', more, 'c', listener, 'b', begins) end
  if ahead then redis.call('HSET', more, 'l', last, 'j', last_event) end
  redis.call('PEXPIREAT', more, now + lifetime)
end
return { reader, claim, listener, tonumber(last), last_event, since, tonumber(version or 0) }
