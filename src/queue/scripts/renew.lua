#!lua flags=allow-oom
-- Extends leases to their full length from now, of those that are still the owner's.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    the owner
-- ARGV[6..]  for each lease: lane, name of the hand-out
-- Result: the places in the list, from 1, of the leases that are not the owner's

local owner = ARGV[5]
local lost = {}
local number = 0
for at = 6, #ARGV, 2 do
  number = number + 1
  local lane = ARGV[at]
  local entry = entry_held_by(owner, lane, ARGV[at + 1])
  if entry then
    if manual then
      date_leases(lane, owner, { entry })
    else
      -- Without JUSTID it would count as a hand-out.
      redis.call('XCLAIM', stream_of(lane), GROUP, owner, 0, entry, 'JUSTID')
    end
  else
    lost[#lost + 1] = number
  end
end
redis.call('ZADD', OWNERS, whole(now), owner)
return lost
