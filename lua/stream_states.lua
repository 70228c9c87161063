-- Tells about the own streams of up to 100 sessions. Touches nothing.
--
-- KEYS[1] deadlines   ZSET  live sessions by their end
-- then for each session: its session HASH and its more HASH, of which h is the reader, k the number of its claim, c the number
-- of the listener, l the last position, b where each of the latest listeners begins, s what l was when each of the latest claims was
-- taken
-- ARGV[1] leeway ms          see leeway.inc.lua
-- ARGV[2] max_age ms         0: never
-- then the id of each, in the same order
--
-- Returns for each session: 1 (0: it does not live, and the rest is 0), the reader ('' for none), its claim or the last one, the
-- listener, the last position, where the latest listeners begin, what the last position was when the latest claims were taken, the
-- version of its record. Cost: O(1) a session.
local deadlines, leeway, max_age = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

--include clock
--include leeway
--include live

local now, reply = clock(), {}
for i = 3, #ARGV do
  local session, more, id = KEYS[2 * i - 4], KEYS[2 * i - 3], ARGV[i]
  local is_live, version = lives(session, deadlines, id, leeway, max_age, now)
  if is_live then
    local known = redis.call('HMGET', more, 'h', 'k', 'c', 'l', 'b', 's')
    reply[#reply + 1], reply[#reply + 2] = 1, known[1] or ''
    for n = 2, 4 do reply[#reply + 1] = tonumber(known[n] or 0) end
    for n = 5, 6 do reply[#reply + 1] = known[n] or '' end
    reply[#reply + 1] = tonumber(version or 0)
  else
    for _ = 1, 8 do reply[#reply + 1] = 0 end
  end
end
return reply
