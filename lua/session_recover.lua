-- Lets one writer at a time give an active session a new upstream session, if its version is still the expected one. Repeated
-- by the same writer it is granted anew.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] more        HASH  its long strings, i the initialize message, y the claim: '<ms since 1970 of its end> <writer>', and,
--                           each under t: and its key, the notes
-- KEYS[4] pending     HASH  its requests in flight
-- ARGV[1] id, ARGV[2] expected version, ARGV[3] writer
-- ARGV[4] term ms             of the claim
-- ARGV[5] lifetime ms         the backstop TTL of a live session
-- ARGV[6] leeway ms          see leeway.inc.lua
-- ARGV[7] max_age ms         0: never
--
-- Returns for how many ms yet another writer has the claim; or 0, the answer of record.inc.lua, the initialize message and
-- keys and messages of the notes. Error NOTFOUND, ILLEGAL (it is not active), CONFLICT (another version). Cost: O(notes).
local session, deadlines, more, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, expected, writer, term, lifetime = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local leeway, max_age = tonumber(ARGV[6]), tonumber(ARGV[7])

--include clock
--include leeway
--include record

local now = clock()
local record = read(session)
if not record[1] then
  return redis.error_reply('NOTFOUND no such session')
end
local ends = redis.call('ZSCORE', deadlines, id)
if record[1] ~= 'a' or is_past(ends, leeway, record[11], max_age, now) then
  return redis.error_reply('ILLEGAL the session is not active')
end
if record[4] ~= expected then
  return redis.error_reply('CONFLICT the session has another version')
end
local over, holder = string.match(redis.call('HGET', more, 'y') or '', '^(%d+) (.*)$')
if holder and holder ~= writer and tonumber(over) > now then return { tonumber(over) - now } end

local all = redis.call('HGETALL', more)
local reply = answer(record, more, now, ends, redis.call('HLEN', pending))
local initialize, at = false, #reply + 2
for i = 1, #all, 2 do
  local key = string.match(all[i], '^t:(.*)$')
  if all[i] == 'i' then initialize = all[i + 1] end
  if key then reply[#reply + 1], reply[#reply + 2] = key, all[i + 1] end
end
table.insert(reply, 1, 0)
table.insert(reply, at, initialize)
redis.call('PERSIST', more) -- first: a permitted write opens a full server for the others
redis.call('HSET', more, 'y', (now + term) .. ' ' .. writer)
redis.call('PEXPIREAT', more, now + lifetime)
return reply
