-- Makes an initializing session. Repeated with the same id and digest it answers with the stored record, whatever its
-- status. Ends up to two sessions on the way: those past their end, then, at the cap, the least recently used.
--
-- KEYS[1] session     HASH  the new record
-- KEYS[2] more        HASH  its long strings and the initialize message
-- KEYS[3] lru         ZSET  live sessions by last activity
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] ended       ZSET  ended sessions by purge time
-- KEYS[6] counts      HASH
-- ARGV[1..9]                  see finish.inc.lua
-- ARGV[10] id, ARGV[11] digest
-- ARGV[12] cap                live sessions, 0: none
-- ARGV[13] min_idle ms       of those that may be evicted
-- ARGV[14] initialize_timeout ms, ARGV[15] lifetime ms: the backstop TTL of a live session
-- ARGV[16] leeway ms          sessions past their end for less stay: after an outage, activity is still on its way
-- ARGV[17] n, then n fields and values of the record, then fields and values of more
--
-- Returns the answer of record.inc.lua, or FULL and the ms until a retry may succeed; then what finish.inc.lua tells is gone;
-- error EXISTS (another digest). Cost: O(log n).
local session, more, lru, deadlines, ended, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, digest, cap, min_idle = ARGV[10], ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local initialize_timeout, lifetime, leeway, n = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local last_field = 17 + 2 * n

--include clock
--include record
--include finish
--include purge

local now = clock()
local known = read(session)
if known[1] then
  if known[2] ~= digest then
    return redis.error_reply('EXISTS the id is taken')
  end
  local ends = redis.call('ZSCORE', deadlines, id) or redis.call('ZSCORE', ended, id)
  local stays = (known[1] == 'i' or known[1] == 'a') and lifetime or retention + backstop
  local reply = answer(known, more, now, ends, redis.call('HLEN', keys_of(id)[3]))
  redis.call('PEXPIREAT', session, now + stays) -- a write: WAIT waits for those of its own connection only
  return reply
end

redis.call('HINCRBY', counts, 'created', 0) -- a full server refuses this; ending others below would open it
local due, idle, retry = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now - leeway, 'LIMIT', 0, 2), {}, 0
finish(due, 'x', now)
local excess = cap > 0 and redis.call('ZCARD', lru) - cap + 1 or 0
local most = math.min(excess, 2 - #due)
local oldest = most > 0 and redis.call('ZRANGE', lru, 0, most - 1, 'WITHSCORES') or {}
for i = 1, #oldest, 2 do
  retry = math.max(oldest[i + 1] + min_idle - now, 0)
  if retry > 0 then break end
  idle[#idle + 1] = oldest[i]
end
finish(idle, 'v', now)
tidy(#due + #idle, now)
if excess > #idle then
  return { 'FULL', math.max(retry, 1), unpack(gone) }
end

redis.call('HSET', session, 's', 'i', 'd', digest, 'v', 1, 'c', now, 'a', now, 'q', 0, unpack(ARGV, 18, last_field))
redis.call('PEXPIREAT', session, now + lifetime)
if #ARGV > last_field then
  redis.call('HSET', more, unpack(ARGV, last_field + 1))
  redis.call('PEXPIREAT', more, now + lifetime)
end
redis.call('ZADD', lru, now, id)
redis.call('ZADD', deadlines, now + initialize_timeout, id)
redis.call('HINCRBY', counts, 'i', 1)
redis.call('HINCRBY', counts, 'created', 1)
local reply = answer(read(session), more, now, now + initialize_timeout, 0)
for i = 1, #gone do reply[#reply + 1] = gone[i] end
return reply
