-- Ends those of some sessions that still live and meet the conditions.
--
-- KEYS[1] lru         ZSET    live sessions by last activity
-- KEYS[2] deadlines   ZSET    live sessions by their end
-- KEYS[3] ended       ZSET    ended sessions by purge time
-- KEYS[4] counts      HASH
-- KEYS[5] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] epoch, ARGV[11] is_leader: 1 or 0
-- ARGV[12] status to end with; those past their end become expired
-- ARGV[13] was: the status they must have, '' for any
-- ARGV[14] min_idle ms, ARGV[15] min_age ms, ARGV[16] spare: 1 when those with requests in flight stay
-- then the ids, at most 100
--
-- Returns how many were ended, then what finish.inc.lua tells is gone; error FENCED <epoch>. Cost: O(log n) a session.
local lru, deadlines, ended, counts, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local epoch, is_leader, status, was = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local min_idle, min_age, spare = tonumber(ARGV[14]), tonumber(ARGV[15]), ARGV[16]

--include clock
--include record
--include finish
--include purge
--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local now, taken, due, others = clock(), {}, {}, {}
for i = 17, #ARGV do
  local id = ARGV[i]
  local keys = keys_of(id)
  local record = redis.call('HMGET', keys[1], 's', 'c', 'a')
  local fits = (record[1] == 'i' or record[1] == 'a') and (was == '' or was == record[1]) and not taken[id]
  fits = fits and now - (tonumber(record[2]) or now) >= min_age and now - (tonumber(record[3]) or now) >= min_idle
  if fits and not (spare == '1' and redis.call('HLEN', keys[3]) > 0) then
    local ends = redis.call('ZSCORE', deadlines, id)
    local list = ends and tonumber(ends) <= now and due or others
    list[#list + 1], taken[id] = id, true
  end
end
finish(due, 'x', now)
finish(others, status, now)
tidy(#due + #others, now)
table.insert(gone, 1, #due + #others)
return gone
