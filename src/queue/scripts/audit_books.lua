#!lua flags=no-writes
-- The books and the lanes, for the audit to compare with what it finds.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- Result: {made, S, D, X, accepted, lanes, findings}

local findings = {}
local function expect(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    findings[#findings + 1] = string.sub(key, #PREFIX + 1) .. ' is a ' .. found .. ' and should be a ' .. kind
  end
end

expect(STAT, 'hash')
expect(LANES, 'set')
expect(DEADLINES, 'zset')
expect(OWNERS, 'zset')
local lanes = {}
for _, lane in ipairs(look('SMEMBERS', LANES) or {}) do
  if is_lane(lane) then
    lanes[#lanes + 1] = lane
    expect(stream_of(lane), 'stream')
    for _, key in ipairs({ due_of(lane), park_of(lane), wake_of(lane), held_of(lane) }) do expect(key, 'zset') end
  else
    findings[#findings + 1] = 'something is listed as a lane that is no name of one'
  end
end
return { booked('made'), booked('S'), booked('D'), booked('X'), booked('accepted'), lanes, findings }
