-- Says how the store's keys are laid out, unless that is said already, and which limits the replicas apply.
--
-- KEYS[1] meta        HASH  schema: version of keys and records; partitions: how many there are; limits
-- ARGV[1] schema, ARGV[2] partitions: what the caller uses ('' for both: only asks)
-- ARGV[3] max_sessions, ARGV[4] retention ms, ARGV[5] audit_stream: of the caller; the last one to say so counts
--
-- Returns the schema, the partitions, max_sessions, retention and audit_stream that hold from now on, '' when nobody has said. Cost: O(1).
local meta = KEYS[1]
local schema, partitions, max_sessions, retention, audit_stream = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local known = redis.call('HMGET', meta, 'schema', 'partitions', 'max_sessions', 'retention', 'audit_stream')
local same = known[1] == schema and known[2] == partitions
local news = known[3] ~= max_sessions or known[4] ~= retention or known[5] ~= audit_stream
if schema ~= '' and (not known[1] or same) and news then
  redis.call('PERSIST', meta) -- first: a permitted write opens a full server for the others
  redis.call('HSET', meta, 'schema', schema, 'partitions', partitions, 'max_sessions', max_sessions, 'retention', retention,
    'audit_stream', audit_stream)
  return { schema, partitions, max_sessions, retention, audit_stream }
end
return { known[1] or '', known[2] or '', known[3] or '', known[4] or '', known[5] or '' }
