#!lua flags=allow-oom
-- Ends routings by making their deliveries, each in one step. Whoever brings the route of a message
-- that is not routed yet is right, whether the lease is still his or not.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  for each: message id, subscriber, ms from acceptance to the deadline, number of
--   deliveries, and for each of those: channel, destination, label, recipient
-- Result: 1 (expanded) or 0 (had ended before) for each, in order
-- Repeating it finds what it made and makes nothing.

-- Makes the deliveries of a routing, `number` of four arguments each from `first` on; there is at least one.
local function make_deliveries(routing, subscriber, deadline, number, first)
  local record = record_of(routing.id)
  local fields = { 'sub', subscriber, 'n', number, 's0', state_of(routing) }
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  for index = 1, number do
    local from = first + 4 * (index - 1)
    local lane, destination = ARGV[from], ARGV[from + 1]
    enlist(lane)
    local piece = {
      id = routing.id, index = index, lane = lane, destination = destination, state = 'P', attempts = 0,
      pauses = 0, handed = 0, maybe = '0', deadline = deadline,
    }
    piece.place = 'e' .. add_entry(piece, false)
    set('r' .. index, lane .. '|' .. destination .. '|' .. ARGV[from + 2])
    set('rc' .. index, ARGV[from + 3])
    set('s' .. index, state_of(piece))
  end
  local left = natural(routing.more[4])
  if left and left > 0 then set('left', whole(left + number - 1)) end
  set_fields(record, fields)
  -- A count that cannot be right is taken from the pieces, which are there now.
  if not left or left <= 0 then count(record, 'left', 0) end
end

local answers = {}
local at = 5
while at <= #ARGV do
  local id, subscriber, allowed, number = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local first = at + 4
  at = first + 4 * number

  local routing = read_piece(id, 0, 'acc', 'left', 'h0')
  if not routing or routing.state ~= 'P' then
    answers[#answers + 1] = 0
  else
    local deadline = (natural(routing.more[3]) or now) + allowed
    if not leave_entry_later(routing) then leave_place(routing) end
    routing.state, routing.handed = 'E', 0
    if routing.more[5] then redis.call('HDEL', record_of(id), 'h0') end
    tally_later('made', number - 1)
    if number > 0 then
      make_deliveries(routing, subscriber, deadline, number, first)
      list_deadline_later(id, deadline)
    else
      write_piece(routing)
      redis.call('HSET', record_of(id), 'sub', subscriber, 'n', 0)
      if count(record_of(id), 'left', -1) == 0 then message_ended(id) end
    end
    answers[#answers + 1] = 1
  end
end
drop_entries()
list_deadlines()
add_tallies()
return answers
