-- Counts one more stream of a live session to its client as open, unless as many of its kind are as may be. Repeated it counts once.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] more        HASH  each under o:, its kind and its key, the open streams: since when (ms), a space, the incarnation that holds it
-- ARGV[1] id, ARGV[2] kind: a letter, ARGV[3] key, ARGV[4] owner: the replica's incarnation
-- ARGV[5] most                how many of the kind may be open
-- ARGV[6] superseded ms       where there is no room, those of the kind that were opened so long ago make it; 0: none do
-- ARGV[7] tell                how many of those that are open are told at most
-- ARGV[8] lifetime ms         the backstop TTL of a live session
-- ARGV[9] leeway ms           see leeway.inc.lua
-- ARGV[10] max_age ms         0: never
--
-- Returns nothing when it is counted, else key and owner of streams that are open; error NOTFOUND. Cost: O(open streams + notes).
local session, deadlines, more = KEYS[1], KEYS[2], KEYS[3]
local id, kind, key, owner, most, superseded = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local tell, lifetime, leeway, max_age = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

--include clock
--include leeway
--include live

local now = clock()
if not lives(session, deadlines, id, leeway, max_age, now) then
  return redis.error_reply('NOTFOUND no such live session')
end
local prefix, open, known = 'o:' .. kind .. ':', {}, false
for _, field in ipairs(redis.call('HKEYS', more)) do
  local is, name = string.match(field, '^o:(%a):(.*)$')
  if is == kind then open[#open + 1] = name end
  known = known or is == kind and name == key
end
if not known and #open >= most then
  local reply, left = {}, 0
  for _, name in ipairs(open) do
    local since, incarnation = string.match(redis.call('HGET', more, prefix .. name), '^(%d+) (.*)$')
    if superseded > 0 and now - (tonumber(since) or 0) >= superseded then
      redis.call('HDEL', more, prefix .. name)
    else
      left = left + 1
      if left <= tell then reply[2 * left - 1], reply[2 * left] = name, incarnation or '' end
    end
  end
  if left >= most then return reply end
end
redis.call('PERSIST', more) -- first: a permitted write opens a full server for the others
redis.call('HSET', more, prefix .. key, string.format('%.0f ', now) .. owner)
redis.call('PEXPIREAT', more, now + lifetime)
return {}
