-- Forgets an open stream of a session. Of one that is not known, or whose session has ended, there is nothing to forget.
--
-- KEYS[1] more        HASH  each under o:, its kind and its key, the open streams
-- ARGV[1] kind: a letter, ARGV[2] key
--
-- Returns 1, or 0 when there was none. Cost: O(1).
local more, kind, key = KEYS[1], ARGV[1], ARGV[2]

return { redis.call('HDEL', more, 'o:' .. kind .. ':' .. key) }
