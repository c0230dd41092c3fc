#!lua flags=allow-oom
-- Holds destinations whose pause was settled in another shard.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  for each: lane, destination, until when (ms)
-- Result: 0
-- Repeating it changes nothing.

for at = 5, #ARGV, 3 do
  local lane, destination, until_ms = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  -- The lane is made known, so that housekeeping forgets the pause once it is over.
  enlist(lane)
  local ends = math.max(until_ms, held_until(lane, destination) or 0)
  if ends > now then
    redis.call('ZADD', held_of(lane), whole(ends), destination)
    redis.call('ZADD', wake_of(lane), 'XX', whole(ends), destination)
  end
end
return 0
