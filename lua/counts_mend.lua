-- Corrects a partition's counts, if no session has changed its status since they were read.
--
-- KEYS[1] counts      HASH
-- KEYS[2] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1] epoch, ARGV[2] is_leader: 1 or 0
-- ARGV[3] n, then n names and values as they were read, then names and values to set
--
-- Returns 1 when they were corrected, 0 when they have changed; error FENCED <epoch>. Cost: O(1).
local counts, fence = KEYS[1], KEYS[2]
local epoch, is_leader, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local last_read = 3 + 2 * n

--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local now = redis.call('HGETALL', counts)
if #now ~= last_read - 3 then return { 0 } end
local was = {}
for i = 4, last_read, 2 do was[ARGV[i]] = ARGV[i + 1] end
for i = 1, #now, 2 do
  if was[now[i]] ~= now[i + 1] then return { 0 } end
end
redis.call('PERSIST', counts) -- first: a permitted write opens a full server for the others
redis.call('HSET', counts, unpack(ARGV, last_read + 1))
return { 1 }
