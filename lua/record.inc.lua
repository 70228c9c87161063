-- Included by scripts that answer with a record.

-- The fields of a record, in the order of redisstore/codec.go.
local function read(session)
  return redis.call('HMGET', session, 's', 'd', 'p', 'v', 'u', 'e', 'x', 'r', 'n', 'w', 'c', 'a', 't', 'q', 'o', 'm', 'z')
end

-- Fills in the strings that are too long for the record and live in the hash `more`. Returns the record, and the long ones if
-- there are any.
local function complete(record, more)
  local long
  if record[16] then
    long = redis.call('HMGET', more, 'e', 'x', 'n', 'w')
    record[6], record[7] = long[1] or record[6], long[2] or record[7]
    record[9], record[10] = long[3] or record[9], long[4] or record[10]
    record[16] = false -- it is complete now
  end
  return record, long
end

-- The answer that all of them give: the store's clock, the moment of the session's end or purge ('' for never), the
-- number of pending requests, and the record.
local function answer(record, more, now, ends, pending)
  return { now, ends or '', pending, unpack((complete(record, more)), 1, 17) }
end
