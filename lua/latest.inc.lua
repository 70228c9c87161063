-- Included by scripts that keep the latest few of some numbers, as text: the latest first, with spaces between them.

-- Returns the text with one more number, of eight at most.
local function with_latest(number, text)
  text = string.format('%.0f', tonumber(number)) .. ' ' .. text
  return string.match(text, '^%d+ ?%d* ?%d* ?%d* ?%d* ?%d* ?%d* ?%d*')
end

-- Returns the nth latest; of what is not there any more the oldest that is, nil when there is none.
local function latest(n, text)
  local found
  for _ = 1, n do
    local one, rest = string.match(text, '^(%d+) ?(.*)')
    if not one then break end
    found, text = tonumber(one), rest
  end
  return found
end
