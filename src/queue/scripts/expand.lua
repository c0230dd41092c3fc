#!lua flags=allow-oom
-- Ends routings by making their deliveries, each in one step, and hands the first of these out. Whoever brings the
-- route of a message that is not routed yet is right, whether the lease is still his or not.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    the owner
-- ARGV[6]    in how many lanes he has room
-- ARGV[7..]  for each of those: lane, for how many deliveries, the lane's rate, each destination's rate (see
--   claim.lua); then for each routing: message id, subscriber, ms from acceptance to the deadline, number of
--   deliveries, and for each of those: channel, `{destination}|{label}`, recipient
-- Result: {now, ended, handed out}; ended: 1 (expanded) or 0 (had ended before) for each routing, in order; handed
--   out: place of the routing from 0, index, name of the hand-out, deadline, for each; both lists are one text,
--   their words apart by a space: that many values would cost much more
-- Repeating it finds what it made and makes nothing. An answer that is lost leaves its work leased, for a sweep to
-- find.

local owner = ARGV[5]

-- What was made in each lane there is room in, side by side: places of the routings, indexes, entries, deadlines,
-- routes.
local made = {}

-- Makes the deliveries of a routing, `number` of three arguments each from `first` on; there is at least one.
local function make_deliveries(place, routing, subscriber, deadline, number, first)
  local id, until_text = routing.id, whole(deadline)
  local fields = { 'sub', subscriber, 'n', number, 's0', state_of(routing) }
  local size, fresh = 6, FRESH .. until_text .. '|e'
  for index = 1, number do
    local from = first + 3 * (index - 1)
    local lane, route = ARGV[from], ARGV[from + 1]
    enlist(lane)
    local text = whole(index)
    local entry = add_entry(lane, id, text)
    fields[size + 1], fields[size + 2] = 'r' .. text, lane .. '|' .. route
    fields[size + 3], fields[size + 4] = 'rc' .. text, ARGV[from + 2]
    fields[size + 5], fields[size + 6] = 's' .. text, fresh .. entry
    size = size + 6
    local here = made[lane]
    if here then
      local next = #here.entries + 1
      here.places[next], here.indexes[next], here.entries[next] = place, text, entry
      here.deadlines[next], here.routes[next] = until_text, route
    end
  end
  local left = natural(routing.more[4])
  if left and left > 0 then fields[size + 1], fields[size + 2] = 'left', whole(left + number - 1) end
  local record = record_of(id)
  set_fields(record, fields)
  -- A count that cannot be right is taken from the pieces, which are there now.
  if not left or left <= 0 then count(record, 'left', 0) end
end

-- Hands out what was made in a lane, in its order and as far as it may go now. Where anything else waits, it is for
-- `claim` to say whose turn it is; and so it is for the first that is overdue, and all behind it: what the group
-- has passed is never read.
local handed_out = {}
local function hand_out(lane, most, lane_rate, rate_of)
  local here = made[lane]
  local entries = here.entries
  local last = #entries > 0 and last_delivered(lane)
  if not last then return end
  local next_entry = entry_after(lane, last)
  if not next_entry or next_entry[1] ~= entries[1] then return end
  if redis.call('ZCARD', held_of(lane)) > 0 or redis.call('ZCARD', wake_of(lane)) > 0 then return end
  local room, number = math.min(most, #entries, room_of(lane_rate)), 0
  while number < room do
    local rate = rate_of(string.match(here.routes[number + 1], '^[^|]*'))
    if tonumber(here.deadlines[number + 1]) <= now or room_of(rate) == 0 then break end
    spend(rate, 1)
    number = number + 1
  end
  if number == 0 then return end
  spend(lane_rate, number)
  local command = { 'XCLAIM', stream_of(lane), GROUP, owner, 0, unpack(entries, 1, number) }
  for _, word in ipairs({ 'TIME', whole(now), 'FORCE', 'JUSTID', 'LASTID', entries[number] }) do
    command[#command + 1] = word
  end
  redis.call(unpack(command))
  for at = 1, number do
    handed_out[#handed_out + 1] = here.places[at] .. ' ' .. here.indexes[at] .. ' ' .. entries[at] .. '/1 '
      .. here.deadlines[at]
  end
end

local lanes = {}
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local lane = ARGV[at]
  made[lane] = { places = {}, indexes = {}, entries = {}, deadlines = {}, routes = {} }
  lanes[#lanes + 1] = at
  at = at + 6
end

local ended = {}
while at <= #ARGV do
  local id, subscriber, allowed, number = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local first = at + 4
  at = first + 3 * number

  local routing = read_piece(id, 0, 'acc', 'left', 'h0')
  if not routing or routing.state ~= 'P' then
    ended[#ended + 1] = 0
  else
    local deadline = (natural(routing.more[3]) or now) + allowed
    if not leave_entry_later(routing) then leave_place(routing) end
    routing.state, routing.handed = 'E', 0
    if routing.more[5] then redis.call('HDEL', record_of(id), 'h0') end
    tally_later('made', number - 1)
    if number > 0 then
      make_deliveries(whole(#ended), routing, subscriber, deadline, number, first)
      list_deadline_later(id, deadline)
    else
      write_piece(routing)
      redis.call('HSET', record_of(id), 'sub', subscriber, 'n', 0)
      if count(record_of(id), 'left', -1) == 0 then message_ended(id) end
    end
    ended[#ended + 1] = 1
  end
end
drop_entries()
list_deadlines()
add_tallies()

for _, from in ipairs(lanes) do
  local lane = ARGV[from]
  local lane_rate = open_rate(PREFIX .. 'rl:' .. lane, tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3]))
  local rate_of, close_rates = rates_of(lane, tonumber(ARGV[from + 4]), tonumber(ARGV[from + 5]))
  hand_out(lane, tonumber(ARGV[from + 1]), lane_rate, rate_of)
  close_rate(lane_rate)
  close_rates()
end
if #handed_out > 0 then redis.call('ZADD', OWNERS, whole(now), owner) end
return { now, table.concat(ended, ' '), table.concat(handed_out, ' ') }
