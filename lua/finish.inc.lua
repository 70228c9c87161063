-- Included by scripts that end sessions, after clock and record. ARGV[1..6] are the prefixes that give an id its keys,
-- ARGV[7] retention ms, ARGV[8] backstop ms (added to it), ARGV[9] ended_cap: how many ended records are kept, 0: any number. The locals lru, deadlines, ended
-- and counts (KEYS) must be set before.
local retention, backstop, ended_cap = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local gone = {} -- the sessions that finish has ended: of each its id, the moment of its purge, and its record
local purged = {} -- the ids of those that purge has removed

-- All keys that a session may own: its record, more, pending, events, heads, frames. The look fails while a slot moves and
-- not all of them are here: then nothing has been written yet.
local function keys_of(id)
  local keys = {}
  for i = 1, 6 do keys[i] = ARGV[i] .. id end
  redis.call('EXISTS', unpack(keys))
  return keys
end

-- Removes an ended session and everything it owns. One that lives does not belong among the ended, and stays.
local function purge(id)
  local keys = keys_of(id)
  local status = redis.call('HGET', keys[1], 's')
  redis.call('ZREM', ended, id)
  if status == 'i' or status == 'a' then return end
  redis.call('UNLINK', unpack(keys))
  if status then redis.call('HINCRBY', counts, status, -1) end
  purged[#purged + 1] = id
end

-- Ends a live session; one that has ended keeps its status. What only a live one needs goes at once, the record stays until
-- its retention has passed. On the way up to two records leave that are past their retention or over the cap, so that ended ones cannot pile up.
local function finish(id, status, now)
  local keys = keys_of(id)
  local record = complete(read(keys[1]), keys[2])
  local was = record[1]
  redis.call('UNLINK', keys[3], keys[4], keys[5]) -- first: a permitted write opens a full server for the others
  redis.call('ZREM', lru, id)
  redis.call('ZREM', deadlines, id)
  if was == 'i' or was == 'a' then
    record[1], record[4], record[17] = status, tonumber(record[4]) + 1, now
    redis.call('HDEL', keys[2], 'i')
    for _, key in ipairs({ keys[1], keys[2], keys[6] }) do redis.call('PEXPIREAT', key, now + retention + backstop) end
    redis.call('HSET', keys[1], 's', status, 'z', now, 'v', record[4])
    redis.call('ZADD', ended, now + retention, id)
    redis.call('HINCRBY', counts, was, -1)
    redis.call('HINCRBY', counts, status, 1)
    redis.call('HINCRBY', counts, 'ended:' .. status, 1)
    gone[#gone + 1] = id
    gone[#gone + 1] = now + retention
    for i = 1, 17 do gone[#gone + 1] = record[i] end
  end
  for _ = 1, 2 do
    local oldest = redis.call('ZRANGE', ended, 0, 0, 'WITHSCORES')
    local over = ended_cap > 0 and redis.call('ZCARD', ended) > ended_cap
    if oldest[1] and (over or tonumber(oldest[2]) <= now) then
      purge(oldest[1])
    end
  end
end
