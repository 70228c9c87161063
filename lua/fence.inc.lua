-- Included by scripts that clean up. The local fence (KEYS) must be set before.

-- Refuses the epoch of a leader whose term is over; a newer one is remembered, if it is a leader's. Returns the refusal.
local function fenced(epoch, is_leader)
  local known = tonumber(redis.call('GET', fence) or 0)
  if tonumber(epoch) < known then
    return redis.error_reply('FENCED ' .. string.format('%.0f', known))
  end
  if is_leader == '1' and tonumber(epoch) > known then
    redis.call('PERSIST', fence) -- first: a permitted write opens a full server for the others
    redis.call('SET', fence, epoch)
  end
end
