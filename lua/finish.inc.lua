-- Included by scripts that end sessions. Their locals lru, deadlines, ended, counts (KEYS), session_prefix, more_prefix,
-- pending_prefix, retention, backstop and ended_cap (ARGV) must be set before.

-- Removes an ended session and everything it owns.
local function purge(id)
  local status = redis.call('HGET', session_prefix .. id, 's')
  redis.call('UNLINK', session_prefix .. id, more_prefix .. id, pending_prefix .. id)
  redis.call('ZREM', ended, id)
  if status then
    redis.call('HINCRBY', counts, status, -1)
  end
end

-- Ends a live session. What only a live one needs goes at once, the record stays until its retention has passed. On the
-- way up to two records leave that are past their retention or over the cap, so that ended ones cannot pile up.
local function finish(id, status, now)
  local session = session_prefix .. id
  local was = redis.call('HGET', session, 's')
  redis.call('UNLINK', pending_prefix .. id) -- first: a permitted write opens a full server for the others
  redis.call('ZREM', lru, id)
  redis.call('ZREM', deadlines, id)
  if was then
    redis.call('HDEL', more_prefix .. id, 'i')
    redis.call('PEXPIREAT', session, now + retention + backstop)
    redis.call('PEXPIREAT', more_prefix .. id, now + retention + backstop)
    redis.call('HSET', session, 's', status, 'z', now)
    redis.call('HINCRBY', session, 'v', 1)
    redis.call('ZADD', ended, now + retention, id)
    redis.call('HINCRBY', counts, was, -1)
    redis.call('HINCRBY', counts, status, 1)
    redis.call('HINCRBY', counts, 'ended:' .. status, 1)
  end
  for _ = 1, 2 do
    local oldest = redis.call('ZRANGE', ended, 0, 0, 'WITHSCORES')
    local over = ended_cap > 0 and redis.call('ZCARD', ended) > ended_cap
    if oldest[1] and (over or tonumber(oldest[2]) <= now) then
      purge(oldest[1])
    end
  end
end
