#!lua flags=allow-oom
-- Ends routings by making their deliveries, each in one step. Whoever brings the route of a message
-- that is not routed yet is right, whether the lease is still his or not.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  for each: message id, subscriber, ms from acceptance to the deadline, number of
--   deliveries, and for each of those: channel, destination, label, recipient
-- Result: 1 (expanded) or 0 (had ended before) for each, in order
-- Repeating it finds what it made and makes nothing.

local answers = {}
local at = 5
while at <= #ARGV do
  local id, subscriber, allowed, number = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local first = at + 4
  at = first + 4 * number

  local routing = read_piece(id, 0)
  if not routing or routing.state ~= 'P' then
    answers[#answers + 1] = 0
  else
    local record = record_of(id)
    local accepted = natural(redis.call('HGET', record, 'acc')) or now
    local deadline = accepted + allowed
    leave_place(routing)
    routing.state, routing.handed = 'E', 0
    write_piece(routing)
    redis.call('HSET', record, 'sub', subscriber, 'n', number)
    redis.call('HDEL', record, 'h0')
    for index = 1, number do
      local from = first + 4 * (index - 1)
      local lane, destination = ARGV[from], ARGV[from + 1]
      redis.call('HSET', record, 'r' .. index, lane .. '|' .. destination .. '|' .. ARGV[from + 2],
        'rc' .. index, ARGV[from + 3])
      enlist(lane)
      make_ready({
        id = id, index = index, lane = lane, destination = destination, state = 'P', attempts = 0,
        pauses = 0, handed = 0, maybe = '0', deadline = deadline,
      }, false)
    end
    tally('made', number - 1)
    if count(record, 'left', number - 1) == 0 then
      message_ended(id)
    else
      redis.call('ZADD', DEADLINES, whole(deadline), id)
    end
    answers[#answers + 1] = 1
  end
end
return answers
