-- Included by scripts that purge ended sessions, after finish.
local purged = {} -- the ids of those that are gone

-- Removes ended sessions and everything they own. One that lives does not belong among the ended, and stays.
local function purge(ids)
  if #ids == 0 then return end
  local all, statuses, fewer = {}, {}, {}
  redis.call('HLEN', counts)
  for n, id in ipairs(ids) do
    all[n] = keys_of(id)
    statuses[n] = redis.call('HGET', all[n][1], 's')
  end
  redis.call('ZREM', ended, unpack(ids)) -- first: a permitted write opens a full server for the others
  for n, id in ipairs(ids) do
    local status = statuses[n]
    if status ~= 'i' and status ~= 'a' then
      redis.call('UNLINK', unpack(all[n]))
      if status then fewer[status] = (fewer[status] or 0) - 1 end
      purged[#purged + 1] = id
      note(id, false)
    end
  end
  add({ 'c', 'x', 'v', 't', 'f' }, fewer)
end

-- Purges, after n sessions have ended, up to two for each of them that are past their retention or over the cap: so ended ones
-- cannot pile up.
local function tidy(n, now)
  if n == 0 then return end
  local old = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, 2 * n)
  local over = ended_cap > 0 and math.min(redis.call('ZCARD', ended) - ended_cap, 2 * n) or 0
  if over > #old then old = redis.call('ZRANGE', ended, 0, over - 1) end
  purge(old)
end
