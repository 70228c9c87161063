-- Brings some sessions' indexes and keys back into step with their records, where they have drifted: a TTL has removed a record, or
-- somebody else has touched the keys. Forgets requests in flight of incarnations that live no more; when none is known to live,
-- the store has forgotten them, and nothing is known.
--
-- KEYS[1] lru         ZSET    live sessions by last activity
-- KEYS[2] deadlines   ZSET    live sessions by their end
-- KEYS[3] ended       ZSET    ended sessions by purge time
-- KEYS[4] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1..6] prefixes that give an id its keys: session, more, pending, events, heads, frames
-- ARGV[7] epoch, ARGV[8] is_leader: 1 or 0
-- ARGV[9] idle ms             idle timeout and slack, 0: never
-- ARGV[10] max_age ms         0: never
-- ARGV[11] initialize_timeout ms
-- ARGV[12] never              the score of a session without an end
-- ARGV[13] lifetime ms        the backstop TTL of a live session
-- ARGV[14] retention ms, ARGV[15] backstop ms (added to it)
-- ARGV[16] young ms           requests in flight for less are left alone
-- ARGV[17] n, then n live incarnations, then the ids, at most 100
--
-- Returns for each repair the id and its kind; error FENCED <epoch>. Cost: O(log n + requests in flight) a session.
local lru, deadlines, ended, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, is_leader, idle, max_age = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local initialize_timeout, never, lifetime = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local retention, backstop, young, n = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])

--include clock
--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local now, alive = clock(), {}

--include mend
--include restore
--include place

local over = { c = true, x = true, v = true, t = true, f = true } -- the statuses of ended sessions
for i = 18, 17 + n do alive[ARGV[i]] = true end

for i = 18 + n, #ARGV do
  local id, keys = ARGV[i], {}
  for k = 1, 6 do keys[k] = ARGV[k] .. id end
  redis.call('EXISTS', unpack(keys))
  local wrong = misshapen(keys)
  local record = wrong[1] and {} or redis.call('HMGET', keys[1], 's', 'a', 'c', 'z', 'v', 'q', 't')
  local status = record[1]
  local is_live = status == 'i' or status == 'a'
  if not is_live and not over[status] then
    local indexed = redis.call('ZREM', lru, id) + redis.call('ZREM', deadlines, id) + redis.call('ZREM', ended, id)
    local left = redis.call('UNLINK', unpack(keys))
    mended(id, 'record_broken', (wrong[1] or status) and 1 or 0)
    mended(id, 'record_missing', (wrong[1] or status) and 0 or indexed)
    mended(id, 'keys_orphaned', (wrong[1] or status) and 0 or left)
  else
    for k = 2, 6 do
      if wrong[k] then mended(id, 'record_broken', redis.call('UNLINK', keys[k])) end
    end
    local activity, created, over_since = restore(id, keys[1], record, is_live)
    if is_live then
      mended(id, 'ttl_missing', limit(keys, lifetime))
      mended(id, 'index_wrong', redis.call('ZREM', ended, id))
      place(id, lru, activity, activity, activity)
      place(id, deadlines, ends_of(status, activity, created))
      if n > 0 then forget(id, keys[3], alive, young) end
    else
      mended(id, 'index_wrong', redis.call('ZREM', lru, id) + redis.call('ZREM', deadlines, id))
      mended(id, 'keys_orphaned', redis.call('UNLINK', unpack(keys, 3, 5)))
      mended(id, 'ttl_missing', limit(keys, retention + backstop))
      local purged_at = over_since + retention
      place(id, ended, purged_at, purged_at, purged_at)
    end
  end
end
return repairs
