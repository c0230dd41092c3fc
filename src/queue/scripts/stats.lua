#!lua flags=no-writes
-- Counts, taken in one step.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  every cause of death
-- Result: {accepted, duplicates, made, S, D, X, lanes, letters of each cause}, and of each lane
--   {name, ready, leased, due later, parked, ms since the oldest ready became so, paused destinations}

local function booked(field)
  return tonumber(redis.call('HGET', STAT, field) or '0') or 0
end

local lanes = {}
local names = redis.call('SMEMBERS', LANES)
table.sort(names)
for _, lane in ipairs(names) do
  local stream = stream_of(lane)
  local length = redis.call('XLEN', stream)
  local pending = redis.pcall('XPENDING', stream, GROUP)
  -- Leases on entries that somebody removed may make it more than there are.
  local leased = math.min(length, is_error(pending) and 0 or pending[1])
  local oldest = redis.call('XRANGE', stream, '(' .. (last_delivered(lane) or '0-0'), '+', 'COUNT', 1)
  local age = 0
  if oldest[1] then age = math.max(0, now - tonumber(string.match(oldest[1][1], '^(%d+)'))) end
  lanes[#lanes + 1] = {
    lane, length - leased, leased, redis.call('ZCARD', due_of(lane)), redis.call('ZCARD', park_of(lane)), age,
    redis.call('ZCOUNT', held_of(lane), '(' .. whole(now), '+inf'),
  }
end

local letters = {}
for at = 5, #ARGV do
  letters[#letters + 1] = redis.call('ZCOUNT', letters_of(ARGV[at]), '(' .. whole(now - retention_ms), '+inf')
end
return {
  booked('accepted'), booked('duplicates'), booked('made'), booked('S'), booked('D'), booked('X'), lanes,
  letters,
}
