-- Takes a new epoch: greater than all before it, and than those that a failover has made the store forget.
--
-- KEYS[1] epoch       STRING  the last one taken
-- ARGV[1] least               an epoch that is known to have been taken, 0 for none
--
-- Returns the new epoch. Cost: O(1).
local epoch = KEYS[1]
local least = tonumber(ARGV[1])

--include clock

local taken = math.max(tonumber(redis.call('GET', epoch) or 0), least, clock()) + 1
redis.call('PERSIST', epoch) -- first: a permitted write opens a full server for the others
redis.call('SET', epoch, string.format('%.0f', taken))
return { taken }
