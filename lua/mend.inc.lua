-- Included by scripts that mend, after clock. The local now must be set before.
local repairs = {} -- of each the id and its kind
local types = { 'hash', 'hash', 'hash', 'stream', 'hash', 'stream' } -- of a session's keys, in their order

-- Notes a repair, if there was anything to do.
local function mended(id, kind, changed)
  if changed ~= 0 then repairs[#repairs + 1], repairs[#repairs + 2] = id, kind end
end

-- Tells which of a session's keys are of another type than they should be.
local function misshapen(keys)
  local wrong = {}
  for i, key in ipairs(keys) do
    local is = redis.call('TYPE', key).ok
    wrong[i] = is ~= 'none' and is ~= types[i]
  end
  return wrong
end

-- Gives a TTL to those of a session's keys that have none. Returns how many there were.
local function limit(keys, ttl)
  local without = 0
  for _, key in ipairs(keys) do
    if redis.call('PTTL', key) == -1 then without = without + redis.call('PEXPIREAT', key, now + ttl) end
  end
  return without
end

-- Forgets a session's requests in flight, but young ones and those of incarnations that live.
local function forget(id, pending, alive, young)
  local all = redis.call('HGETALL', pending)
  for i = 1, #all, 2 do
    local since, owner = string.match(all[i + 1], '^(%d+) (.*)$')
    if not (owner and alive[owner]) and now - (tonumber(since) or 0) >= young then
      mended(id, 'pending_abandoned', redis.call('HDEL', pending, all[i]))
    end
  end
end
