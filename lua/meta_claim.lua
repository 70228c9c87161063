-- Says how the store's keys are laid out, unless that is said already.
--
-- KEYS[1] meta        HASH  schema: version of keys and records; partitions: how many there are
-- ARGV[1] schema, ARGV[2] partitions: what the caller uses ('' for both: only asks)
--
-- Returns the schema and the partitions that hold from now on, '' for both when nobody has said. Cost: O(1).
local meta = KEYS[1]
local schema, partitions = ARGV[1], ARGV[2]

local known = redis.call('HMGET', meta, 'schema', 'partitions')
if known[1] then
  return { known[1], known[2] or '' }
end
if schema ~= '' then
  redis.call('HSET', meta, 'schema', schema, 'partitions', partitions)
end
return { schema, partitions }
