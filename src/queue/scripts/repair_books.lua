#!lua flags=allow-oom
-- Puts the books right, once every record and every place is: what was made is what ended and what there is.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- Result: what was done
-- Repeating it finds nothing to do.

local done = {}
for _, field in ipairs({ 'accepted', 'duplicates', 'made', 'S', 'D', 'X', 'orphans' }) do
  local text = redis.call('HGET', STAT, field)
  if text and text ~= whole(booked(field)) then
    redis.call('HDEL', STAT, field)
    done[#done + 1] = 'the books held no number for ' .. field
  end
end
for _, field in ipairs({ 'S', 'D', 'X' }) do
  if booked(field) < 0 then
    redis.call('HSET', STAT, field, 0)
    done[#done + 1] = 'the books said less than nothing for ' .. field
  end
end

local there = 0
for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
  if not is_lane(lane) then
    redis.call('SREM', LANES, lane)
    done[#done + 1] = 'something was listed as a lane that is no name of one'
  end
end
for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
  secure_lane(lane)
  there = there + redis.call('XLEN', stream_of(lane)) + redis.call('ZCARD', due_of(lane))
    + redis.call('ZCARD', park_of(lane))
end
local ended = booked('S') + booked('D') + booked('X')
local said = booked('made') - ended
if said ~= there then
  redis.call('HSET', STAT, 'made', whole(ended + there))
  done[#done + 1] = 'the books said ' .. whole(said) .. ' pending deliveries, there are ' .. whole(there)
end
return done
