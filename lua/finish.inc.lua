-- Included by scripts that end sessions, after clock and record. ARGV[1..6] are the prefixes that give an id its keys,
-- ARGV[7] retention ms, ARGV[8] backstop ms (added to it), ARGV[9] ended_cap: how many ended records are kept, 0: any number.
-- The locals lru, deadlines, ended and counts (KEYS) must be set before. Here and in purge.inc.lua each function takes several
-- sessions: it looks at all that could make it fail before it writes, and writes what they share once for all of them.
local retention, backstop, ended_cap = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local gone = {} -- of each session that was ended its id, the moment of its purge, and its record; of each purged its id and false

-- Notes a session in gone.
local function note(id, stays, record)
  local last = #gone
  gone[last + 1], gone[last + 2] = id, stays
  for i = 1, record and 17 or 0 do gone[last + 2 + i] = record[i] or false end
end

-- All keys that a session may own: its record, more, pending, events, heads, frames; and how many there are. The look fails
-- while a slot moves and not all of them are here.
local function keys_of(id)
  local keys = {}
  for i = 1, 6 do keys[i] = ARGV[i] .. id end
  return keys, redis.call('EXISTS', unpack(keys))
end

-- Adds to some counts, those of names that have changed. One that is no number stands for 0.
local function add(names, changes)
  local changed, fields = {}, {}
  for _, name in ipairs(names) do if changes[name] then changed[#changed + 1] = name end end
  if #changed == 0 then return end
  local known = redis.call('HMGET', counts, unpack(changed))
  for n, name in ipairs(changed) do fields[2 * n - 1], fields[2 * n] = name, (tonumber(known[n]) or 0) + changes[name] end
  redis.call('HSET', counts, unpack(fields))
end

-- Ends live sessions; those that have ended keep their status. What only live ones need goes at once; the records, with their
-- long strings, stay until their retention has passed.
local function finish(ids, status, now)
  if #ids == 0 then return end
  local all, found, records, longs, stays = {}, {}, {}, {}, now + retention
  redis.call('HLEN', counts)
  redis.call('ZCARD', lru)
  redis.call('ZCARD', deadlines)
  redis.call('ZCARD', ended)
  for n, id in ipairs(ids) do
    all[n], found[n] = keys_of(id)
    records[n], longs[n] = complete(read(all[n][1]), all[n][2])
  end
  redis.call('ZREM', lru, unpack(ids)) -- first: a permitted write opens a full server for the others
  redis.call('ZREM', deadlines, unpack(ids))
  local scores, changes = {}, {}
  for n, id in ipairs(ids) do
    local keys, record, was = all[n], records[n], records[n][1]
    if was ~= 'i' and was ~= 'a' then
      redis.call('UNLINK', unpack(keys, 3, 5))
    else
      changes[was] = (changes[was] or 0) - 1
      record[1], record[4], record[17] = status, (tonumber(record[4]) or 0) + 1, now
      redis.call('HSET', keys[1], 's', status, 'z', now, 'v', record[4])
      redis.call('PEXPIREAT', keys[1], stays + backstop)
      local unlinked = found[n] > 1 and redis.call('UNLINK', unpack(keys, 2, 5)) or 0
      if longs[n] then
        for i, field in ipairs({ 'e', 'x', 'n', 'w' }) do
          if longs[n][i] then redis.call('HSET', keys[2], field, longs[n][i]) end
        end
        redis.call('PEXPIREAT', keys[2], stays + backstop)
      end
      if found[n] > 1 + unlinked then redis.call('PEXPIREAT', keys[6], stays + backstop) end -- there are frames
      scores[#scores + 1], scores[#scores + 2] = stays, id
      note(id, stays, record)
    end
  end
  if #scores > 0 then
    redis.call('ZADD', ended, unpack(scores))
    changes[status], changes['ended:' .. status] = #scores / 2, #scores / 2
    add({ 'i', 'a', status, 'ended:' .. status }, changes)
  end
end
