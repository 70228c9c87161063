-- Tells the time by the clock that a partition's scripts go by. Touches nothing.
--
-- KEYS[1] lru         ZSET  live sessions by last activity; which server is asked, no more
-- ARGV    none
--
-- Returns the ms since 1970, and whether any session lives. Cost: O(1).
local lru = KEYS[1]

--include clock

return { clock(), redis.call('EXISTS', lru) }
