#!lua flags=no-writes
-- Counts, taken in one step.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  every cause of death
-- Result: {accepted, duplicates, made, S, D, X, lanes, letters of each cause}, and of each lane
--   {name, ready, leased, due later, parked, ms since the oldest ready became so, paused destinations}

local lanes = {}
local names = {}
for _, lane in ipairs(look('SMEMBERS', LANES) or {}) do
  if is_lane(lane) then names[#names + 1] = lane end
end
table.sort(names)
for _, lane in ipairs(names) do
  local stream = stream_of(lane)
  local length = look('XLEN', stream) or 0
  local pending = look('XPENDING', stream, GROUP)
  -- Leases on entries that somebody removed may make it more than there are.
  local leased = math.min(length, pending and pending[1] or 0)
  local oldest = entry_after(lane, last_delivered(lane) or '0-0')
  local since = oldest and natural(string.match(oldest[1], '^%d+'))
  lanes[#lanes + 1] = {
    lane, length - leased, leased, look('ZCARD', due_of(lane)) or 0, look('ZCARD', park_of(lane)) or 0,
    since and math.max(0, now - since) or 0, look('ZCOUNT', held_of(lane), '(' .. whole(now), '+inf') or 0,
  }
end

local letters = {}
for at = 5, #ARGV do
  local number = look('ZCOUNT', letters_of(ARGV[at]), '(' .. whole(now - retention_ms), '+inf')
  letters[#letters + 1] = number or 0
end
return {
  booked('accepted'), booked('duplicates'), booked('made'), booked('S'), booked('D'), booked('X'), lanes,
  letters,
}
