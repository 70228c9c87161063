-- Gives live sessions of a principal the places that they have lost.
--
-- KEYS[1] principal   ZSET  ids of its sessions by the moment of reservation, ms
-- ARGV[1] lifetime ms         the backstop TTL of the places
-- then ids, each after the moment of its reservation, ms; at most 100
--
-- Returns the ids that had none. Cost: O(log n) an id.
local principal = KEYS[1]
local lifetime = tonumber(ARGV[1])

--include clock

local given = {}
for i = 2, #ARGV, 2 do
  if not redis.call('ZSCORE', principal, ARGV[i + 1]) then given[#given + 1] = i end
end
if #given == 0 then return given end
redis.call('PEXPIREAT', principal, clock() + lifetime) -- first: a permitted write opens a full server for the others
for n, i in ipairs(given) do
  redis.call('ZADD', principal, ARGV[i], ARGV[i + 1])
  given[n] = ARGV[i + 1]
end
redis.call('PEXPIREAT', principal, clock() + lifetime) -- there may have been nothing before
return given
